"""The event source mapping of `kinstream local --invoke`: reads the streams and calls a function with their records, as Lambda.

shards -> batch -> event -> function -> response -> batch (retry, bisect, discard) -> failed_document
"""
