"""The steps that bring an older catalogue to the present schema (Alembic)."""
