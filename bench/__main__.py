"""`python -m bench`: see the package."""

if __name__ == "__main__":
    from bench.run import main  # here, since processes that are started from this one import this file

    main()
