"""The non-local operation for the four pairwise functions: Section 3.1-3.2, Eq. 1-5.

    y_i = 1/C(x) * sum_j f(x_i, x_j) g(x_j)                                     Eq. 1

B is the batch, N the number of positions i, M the number of positions j (after subsampling), d the
channels of theta and phi, D those of g. Every function takes `theta` (B, d, N), `phi` (B, d, M) and
`g` (B, D, M), and returns y (B, D, N).
"""

import torch
from torch import Tensor


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, logit_scale: float) -> Tensor:
    """f = exp(logit_scale * theta_i . phi_j), C(x) = sum_j f: Eq. 2 and 3, a softmax over j.

    Eq. 2 (Gaussian) is the case theta = phi = x. The paper has `logit_scale` 1.
    """
    logits = logit_scale * torch.bmm(theta.transpose(1, 2), phi)  # (B, N, M)
    return torch.bmm(g, logits.softmax(dim=2).transpose(1, 2))  # (B, D, N)


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """f = theta_i . phi_j, C(x) = M: Eq. 4."""
    affinity = torch.bmm(theta.transpose(1, 2), phi) / phi.shape[2]  # (B, N, M)
    return torch.bmm(g, affinity.transpose(1, 2))  # (B, D, N)


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """f = ReLU(w_f . [theta_i, phi_j]), C(x) = M: Eq. 5.

    `w_f` has 2d elements, theta's half first. The dot product splits into a_i + b_j, so no pair is
    ever concatenated.
    """
    w_theta, w_phi = w_f.flatten().chunk(2)
    a = torch.matmul(w_theta, theta).unsqueeze(2)  # (B, N, 1)
    b = torch.matmul(w_phi, phi).unsqueeze(1)  # (B, 1, M)
    affinity = torch.relu(a + b) / phi.shape[2]  # (B, N, M)
    return torch.bmm(g, affinity.transpose(1, 2))  # (B, D, N)
