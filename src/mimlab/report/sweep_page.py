def write_sweep_page(folder, rows, summary):
    pass
