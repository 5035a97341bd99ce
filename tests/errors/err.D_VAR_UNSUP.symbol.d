BEGIN { x = `jiffies; }
