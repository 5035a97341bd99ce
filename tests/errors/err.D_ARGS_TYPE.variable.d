BEGIN { trace(args[pid]); }
