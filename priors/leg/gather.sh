#!/bin/sh
# Gathers what travels to a GPU machine: gather.sh PACK FOLDER. The pack is made by `python -m dreampolish.training.multiview.packing`.
set -eu
pack=$(realpath "$1") folder=$(realpath -m "$2")
cd "$(dirname "$0")/../.."
mkdir -p "$folder/code"
find dreampolish flows schemas stages -name '*.py' -exec cp --parents {} "$folder/code" \;
cp priors/home/autoencoder/diffusion_pytorch_model.safetensors "$folder/codec.safetensors"
cp priors/leg/run.sh "$folder/run.sh"
cp "$pack" "$folder/pack.npz"
du -sm "$folder"
