BEGIN { x = "a"; }
