"""What `segnode check` looks at: each check takes the settings and gives findings, and changes nothing."""
