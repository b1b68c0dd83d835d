"""Admission: the journal is replayed and each migration judged before a host opens any volume."""
