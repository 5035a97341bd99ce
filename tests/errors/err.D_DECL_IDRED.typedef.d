typedef int a_t; typedef char a_t;
