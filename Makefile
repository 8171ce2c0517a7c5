# make demo                      restored pictures from a real node, in demo/report.html
# make demo SOURCE=clip.mp4      the same with your own video, or a camera (SOURCE=0)
# make test                      lint, types, architecture, unit and node tests
# make test ROS_DISTRO=jazzy     the same on ROS 2 Jazzy
# make cuda MINUTES=10           with an NVIDIA GPU: tests, benchmarks and trainings, one table
# make cuda PICTURES=DIR         the same, trained on your sharp pictures (DEVICE=cpu: a trial)

ROS_DISTRO ?= kilted
export ROS_DISTRO
PYTHON ?= python3
VENV := .venv$(if $(filter-out kilted,$(ROS_DISTRO)),-$(ROS_DISTRO))
BIN := $(VENV)/bin
# A workspace that happens to be sourced must not get mixed in.
CLEAN := env -u PYTHONPATH -u AMENT_PREFIX_PATH
DDS_PROFILE := $(if $(filter jazzy,$(ROS_DISTRO)),FASTRTPS,FASTDDS)_DEFAULT_PROFILES_FILE
# Without an NVIDIA GPU the small build of PyTorch will do (the default brings gigabytes of CUDA).
TORCH_INDEX := $(if $(shell command -v nvidia-smi),,--extra-index-url https://download.pytorch.org/whl/cpu)

.PHONY: demo test cuda clean

demo: $(VENV)/installed
	$(CLEAN) $(DDS_PROFILE)=$(CURDIR)/config/fastdds_large_images.xml \
	  ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(BIN)/python -m iov_restore_ros.tools.demo --output demo $(if $(SOURCE),--source '$(SOURCE)')

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(CLEAN) $(BIN)/python -m pytest -n 2 --dist loadfile  # tests of the node mostly wait

MINUTES ?= 10
cuda: $(VENV)/installed
	$(CLEAN) ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(BIN)/python benchmarks/on_gpu.py --minutes $(MINUTES) $(if $(PICTURES),--pictures '$(PICTURES)') $(if $(DEVICE),--device $(DEVICE))

$(VENV)/installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --retries 1 -c constraints.txt $(TORCH_INDEX) torch
	$(BIN)/pip install -c constraints.txt -e '.[$(ROS_DISTRO),train,test]'
	touch $@

clean:
	rm -rf .venv .venv-jazzy demo build install log *.egg-info
