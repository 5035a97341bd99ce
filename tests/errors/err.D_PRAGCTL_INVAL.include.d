#include <a.h>
BEGIN { }
