int a[3]; BEGIN { x = a; }
