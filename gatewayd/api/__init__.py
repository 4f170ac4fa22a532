"""The one verb table: name, argument and result schema, handler, role, errors."""
