"""The verbs, one module a group: each is a function of (context, arguments) to an exit code."""
