"""What other libraries call the fields of a recipe: the names that people type who come from them."""

from models.nearest import close
from models.recipes.recipe import Recipe

# Of torch, torchvision's references, timm, Keras, Lightning and Hugging Face's Trainer. A name that contains a field's
# name, such as num_epochs, needs no entry, nor does a part of one, such as warmup.
_ALSO_CALLED = {
    "network": "model arch architecture backbone net",
    "init": "pretrained weights init_weights checkpoint initial_checkpoint finetune_from",
    "freeze_epochs": "freeze frozen freeze_backbone unfreeze_epoch",
    "channels": "in_chans in_channels input_channels num_channels",
    "image_size": "img_size imgsz input_size crop_size train_crop_size val_crop_size resolution",
    "resize": "resize_size val_resize_size crop_pct",
    "batch_size": "bs batch train_batch_size per_device_train_batch_size",
    "optimizer": "opt optim optimiser nesterov sgd adam adamw",
    "lr": "learning_rate learningrate base_lr initial_lr init_lr max_lr lr0",
    "momentum": "beta1 beta_1 betas adam_beta1",
    "weight_decay": "wd decay l2 l2_reg",
    "schedule": "scheduler sched lr_scheduler lr_schedule lr_scheduler_type",
    "step_epochs": "milestones lr_milestones decay_milestones decay_epochs step_size lr_step_size lr_steps",
    "step_factor": "gamma lr_gamma decay_rate drop_factor",
    "warmup_epochs": "warmup_steps warmup_ratio lr_warmup_epochs pct_start",
    "label_smoothing": "smoothing label_smoothing_factor",
    "clip_norm": "grad_clip clip_grad clip_grad_norm max_grad_norm gradient_clip_val gradient_clipping clipnorm "
    "global_clipnorm",
    "accumulate": "accumulation_steps grad_accum_steps gradient_accumulation_steps accumulate_grad_batches",
    "class_weights": "class_weight",
    "sampling": "sampler",
    "ema_decay": "ema model_ema model_ema_decay use_ema ema_momentum",
    "crop_padding": "padding random_crop pad",
    "random_resized_crop": "rrc crop_scale",
    "horizontal_flip": "flip hflip fliplr flip_prob hflip_prob random_flip random_horizontal_flip",
    "erasing": "random_erase random_erasing reprob erase",
    "auto_augment": "aa autoaugment randaugment rand_augment trivial_augment trivialaugment augment augmentation",
    "mixup": "mix_up",
    "cutmix": "cut_mix",
    "cutout": "cut_out",
    "test_time_flip": "tta test_time_augmentation",
    "keep": "save_best save_best_only restore_best_weights load_best_model_at_end",
    "precision": "amp fp16 bf16 tf32 half mixed_precision dtype autocast",
    "channels_last": "memory_format",
    "compile": "torch_compile torchcompile",
    "seed": "random_seed random_state manual_seed",
    "workers": "num_workers nworkers dataloader_num_workers",
    "devices": "gpus num_gpus ngpus world_size nproc_per_node",
    "val_fraction": "validation_split val_split val_size validation_fraction",
    "max_seconds": "time_limit time timeout max_time max_duration time_budget",
    "patience": "early_stopping early_stopping_patience early_stop",
    "target_accuracy": "target stop_accuracy",
    "checkpoint_seconds": "save_every save_freq save_interval checkpoint_interval",
}
_FIELDS = {other: field for field, others in _ALSO_CALLED.items() for other in others.split()}


def meant(name: str) -> list[str]:
    """The fields that `name` probably means, the likeliest first; several where it is a part of each, or none."""
    plain = name.strip().lower().replace("-", "_")
    if plain in _FIELDS:
        return [_FIELDS[plain]]
    words = set(plain.split("_"))
    contained = [field for field in Recipe.model_fields if words >= set(field.split("_"))]
    if contained:
        return [max(contained, key=len)]
    if containing := [field for field in Recipe.model_fields if words <= set(field.split("_"))]:
        return containing
    near = close(plain, [*Recipe.model_fields, *_FIELDS], cutoff=0.75)
    return [] if near is None else [_FIELDS.get(near, near)]
