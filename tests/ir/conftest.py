"""Property tests are not timed one by one: a busy machine is no defect."""

from hypothesis import settings

settings.register_profile("probekit", deadline=None)
settings.load_profile("probekit")
