"""Files and rows looked at for a person: what `validate` and `show` tell."""
