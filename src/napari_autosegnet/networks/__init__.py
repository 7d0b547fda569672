"""Operations, layers and the segmentation network; U-Net and PSPNet to compare with."""
