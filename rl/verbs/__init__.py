"""Verbs of the search, for the command line of codegen (entry-point group `codegen.verbs`)."""
