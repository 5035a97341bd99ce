signed unsigned x; BEGIN { }
