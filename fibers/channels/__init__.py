"""Channels and `select`, with the semantics of Go's.

passage    how a value passes from one side to the other, exactly once
channel    `Channel`
readiness  files as cases of a `select`
selecting  `select`: one of several cases happens
"""
