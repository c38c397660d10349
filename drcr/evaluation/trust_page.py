"""stub."""
import csv, io
from drcr.utils.files import write_atomically
def check_folder(out): pass
def write_results(out, rows, summary, study, cubes, wavelengths, notes, command):
    import pickle
    pickle.dump((rows, summary, study, cubes, wavelengths, notes, command), open(out/'dump.pkl','wb'))
