"""DRCR Net for spectral reconstruction: an RGB image in, a 31-band hyperspectral cube (400-700 nm) out."""
