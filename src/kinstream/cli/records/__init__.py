"""Records in commands: as lines of JSON and of text, filtered, and unwrapped from the formats of AWS services."""
