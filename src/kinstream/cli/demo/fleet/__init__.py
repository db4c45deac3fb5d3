"""`kinstream demo --fleet`: worker processes share the demo's stream while they join, leave and are killed."""
