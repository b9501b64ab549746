"""docs/performance.md and docs/performance-figures.md, of what was measured.

A run keeps every figure in bench/results, which is not committed. `python -m bench.performance FILE ...` takes medians,
quartiles, ratios and the machine out of such files into one, bench/performance.json, in place of the parts that they
have measured again (`--anew`: and drops all others); and then writes the pages and their charts. Without a file it
only writes these. Causes of misses, descriptions and what is said of peers come from the code, so they can be written
when the figures are known.

    results   the file
    page      what was measured, and what to make of it
    better    where a peer is better, and which aims are missed
    tables    all figures
    words     how things are called and written on both
    charts    one for each part: how many times as good as the best of the peers
"""
