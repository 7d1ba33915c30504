"""What the console asks a person, one dialog a module. Opened with all it shows; live data
that moves behind it changes nothing inside."""
