from hypothesis import settings

# A busy machine is no failure: what takes too long is for the suite's own clock to say.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
