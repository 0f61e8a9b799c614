"""The catalogue: what came, what became of it, and what went out. It is the truth; the broker is a hint."""
