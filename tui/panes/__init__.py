"""The six panes of the console, one module each. They show a frame; they ask nobody."""
