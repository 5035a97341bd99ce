BEGIN { x = *pid; }
