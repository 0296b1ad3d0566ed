"""Several fibers as one: their failures, their end, their number.

group      `TaskGroup`
pools      `Pool`: a group with a limit
gathering  `gather`, `wait`, `as_completed`
"""
