"""Arrays, networks and model packages: no DICOM, no queue, no database."""
