# The tiny classifier with the number of classes as a number, as the inferencers need it.
_base_ = './classifier.py'
model = dict(head=dict(num_classes=2))
data_preprocessor = dict(num_classes=2)
