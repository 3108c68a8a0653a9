"""What carries the service beyond one machine's files: PostgreSQL, Redis, an object store, and work pools of other kinds."""
