"""The report of a check: one file of HTML that needs no script, no network and no second file."""
