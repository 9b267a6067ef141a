"""Colours, markers and lines of several series, told apart with every kind of colour vision and without colour."""

# Okabe and Ito's colours, without their yellow and black, which vanish on a light or dark page.
CURVES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')
MARKERS = 'os^Dv*P'  # as many as shares no divisor with the colours: the pairs repeat after 42 series
DASHES = ('-', '--', ':', '-.')
HATCHES = ('', '///', '...', 'xxx', '\\\\\\', '++')
