BEGIN { x = strlen("a"); }
