"""Pixel2Mesh (Wang et al., ECCV 2018): from one picture to a mesh, by deforming an ellipsoid."""
