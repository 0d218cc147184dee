"""What Alembic runs: it brings the database behind a given connection up to date."""

from alembic import context

from storygen.story.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a column only by copying its table
)
with context.begin_transaction():
    context.run_migrations()
