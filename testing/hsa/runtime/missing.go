//go:build linux && amd64

package main

import "C"

// What llama.cpp needs neither on a card nor here: images, samplers, sharing with
// other processes and with graphics, virtual memory in pieces, shared virtual
// memory, copies of rectangles, and the logs of the ROCm runtime.

//export hsa_ext_image_create
func hsa_ext_image_create() status { return missing() }

//export hsa_ext_image_create_with_layout
func hsa_ext_image_create_with_layout() status { return missing() }

//export hsa_amd_image_create
func hsa_amd_image_create() status { return missing() }

//export hsa_ext_image_destroy
func hsa_ext_image_destroy() status { return missing() }

//export hsa_ext_image_import
func hsa_ext_image_import() status { return missing() }

//export hsa_ext_image_export
func hsa_ext_image_export() status { return missing() }

//export hsa_ext_image_data_get_info
func hsa_ext_image_data_get_info() status { return missing() }

//export hsa_ext_sampler_create
func hsa_ext_sampler_create() status { return missing() }

//export hsa_ext_sampler_destroy
func hsa_ext_sampler_destroy() status { return missing() }

//export hsa_amd_interop_map_buffer
func hsa_amd_interop_map_buffer() status { return missing() }

//export hsa_amd_interop_unmap_buffer
func hsa_amd_interop_unmap_buffer() status { return missing() }

//export hsa_amd_ipc_memory_create
func hsa_amd_ipc_memory_create() status { return missing() }

//export hsa_amd_ipc_memory_attach
func hsa_amd_ipc_memory_attach() status { return missing() }

//export hsa_amd_ipc_memory_detach
func hsa_amd_ipc_memory_detach() status { return missing() }

//export hsa_amd_vmem_address_reserve
func hsa_amd_vmem_address_reserve() status { return missing() }

//export hsa_amd_vmem_address_free
func hsa_amd_vmem_address_free() status { return missing() }

//export hsa_amd_vmem_handle_create
func hsa_amd_vmem_handle_create() status { return missing() }

//export hsa_amd_vmem_handle_release
func hsa_amd_vmem_handle_release() status { return missing() }

//export hsa_amd_vmem_map
func hsa_amd_vmem_map() status { return missing() }

//export hsa_amd_vmem_unmap
func hsa_amd_vmem_unmap() status { return missing() }

//export hsa_amd_vmem_set_access
func hsa_amd_vmem_set_access() status { return missing() }

//export hsa_amd_vmem_get_access
func hsa_amd_vmem_get_access() status { return missing() }

//export hsa_amd_vmem_export_shareable_handle
func hsa_amd_vmem_export_shareable_handle() status { return missing() }

//export hsa_amd_vmem_import_shareable_handle
func hsa_amd_vmem_import_shareable_handle() status { return missing() }

//export hsa_amd_svm_attributes_set
func hsa_amd_svm_attributes_set() status { return missing() }

//export hsa_amd_svm_attributes_get
func hsa_amd_svm_attributes_get() status { return missing() }

//export hsa_amd_svm_prefetch_async
func hsa_amd_svm_prefetch_async() status { return missing() }

//export hsa_amd_memory_async_copy_rect
func hsa_amd_memory_async_copy_rect() status { return missing() }

//export hsa_executable_agent_global_variable_define
func hsa_executable_agent_global_variable_define() status { return missing() }

//export hsa_amd_coherency_set_type
func hsa_amd_coherency_set_type() status { return missing() }

//export hsa_amd_queue_cu_set_mask
func hsa_amd_queue_cu_set_mask() status { return missing() }

//export hsa_amd_enable_logging
func hsa_amd_enable_logging() status { return missing() }

//export hsa_memory_register
func hsa_memory_register() status { return missing() }

//export hsa_memory_deregister
func hsa_memory_deregister() status { return missing() }

//export loaderMissing
func loaderMissing() status { return notImplemented("a function of the loader's extension") }
