# The toy classifier with a record of what every process draws; data_root is set by the test.
_base_ = './toy_image_folder.py'
custom_imports = dict(imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine', 'draw_recorder'])
custom_hooks = [dict(type='DrawRecorder')]
randomness = dict(seed=3)
