"""Networks by name: a frozen specification in, a torch module out."""
