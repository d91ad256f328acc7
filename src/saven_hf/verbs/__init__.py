"""The verbs of the `saven` command. Each parses its words, calls one public function and prints what it gave."""
