"""`python -m mmdefocus` is the console script `mmdefocus`."""

from mmdefocus.cli.main import main

if __name__ == '__main__':
    main()
