"""Faults on purpose: kills at every write, brokers wiped, disks full; and what must hold afterwards."""
