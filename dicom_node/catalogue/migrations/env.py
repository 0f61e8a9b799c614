"""Runs the migrations on the connection that `dicom_node.catalogue.database` hands over."""

from alembic import context

from dicom_node.catalogue.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
