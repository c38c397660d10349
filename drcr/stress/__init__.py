"""The stress test: when the spectra are not to be believed."""
