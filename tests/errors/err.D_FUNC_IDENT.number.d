BEGIN { 5(); }
